package upstream

// Found puts a listing together from pages that may tell a notebook twice. It is not
// safe for concurrent use.
type Found struct {
	list []Notebook
	at   map[string]int // by id
}

// NewFound returns a Found with room for about n notebooks.
func NewFound(n int) *Found {
	return &Found{list: make([]Notebook, 0, n), at: make(map[string]int, n)}
}

// Get returns the notebook with an id, or nil. It stays valid until the next Put.
func (f *Found) Get(id string) *Notebook {
	i, ok := f.at[id]
	if !ok {
		return nil
	}
	return &f.list[i]
}

// Put adds a notebook, in place of the one with the same id if there is one.
func (f *Found) Put(n Notebook) {
	if i, ok := f.at[n.ID]; ok {
		f.list[i] = n
		return
	}
	f.at[n.ID] = len(f.list)
	f.list = append(f.list, n)
}

// Len is how many notebooks were put.
func (f *Found) Len() int { return len(f.list) }

// Notebooks returns all, in the order in which they were first put. It is never nil.
func (f *Found) Notebooks() []Notebook { return f.list }
