package access

import "sync"

// memo remembers a bounded number of values: the newest, and those asked for since
// as many came as it holds. Nothing is remembered for ever because of many callers
// that come once.
type memo[K comparable, V any] struct {
	size int // of each half

	mu       sync.Mutex // guards what is below
	new, old map[K]V
}

func newMemo[K comparable, V any](size int) *memo[K, V] {
	return &memo[K, V]{size: (size + 1) / 2, new: map[K]V{}}
}

func (m *memo[K, V]) get(k K) (V, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.new[k]
	if !ok {
		if v, ok = m.old[k]; ok {
			m.putLocked(k, v)
		}
	}
	return v, ok
}

func (m *memo[K, V]) put(k K, v V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.putLocked(k, v)
}

func (m *memo[K, V]) putLocked(k K, v V) {
	if _, ok := m.new[k]; !ok && len(m.new) >= m.size {
		m.new, m.old = map[K]V{}, m.new
	}
	m.new[k] = v
}

func (m *memo[K, V]) len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := len(m.new)
	for k := range m.old {
		if _, ok := m.new[k]; !ok {
			n++
		}
	}
	return n
}
