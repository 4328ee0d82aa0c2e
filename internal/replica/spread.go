package replica

import (
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"
)

// spread gives each piece of work to one of the members that know of it: evenly,
// so that who comes or goes moves little, and so that everybody who knows the same
// members comes to the same result.
func spread(members map[string][]string) map[string]string {
	knows := map[string][]string{} // work → members
	for _, id := range slices.Sorted(maps.Keys(members)) {
		for _, name := range members[id] {
			knows[name] = append(knows[name], id)
		}
	}
	if len(members) == 0 {
		return nil
	}
	most := (len(knows) + len(members) - 1) / len(members)
	load := map[string]int{}
	chosen := make(map[string]string, len(knows))
	for _, name := range slices.Sorted(maps.Keys(knows)) {
		best := ""
		for _, id := range knows[name] {
			switch {
			case best == "",
				load[id] < most && load[best] >= most,
				load[id] < most && weight(id, name) > weight(best, name),
				load[best] >= most && load[id] < load[best]:
				best = id
			}
		}
		load[best]++
		chosen[name] = best
	}
	return chosen
}

// weight orders the members for a piece of work: for each another way.
func weight(id, name string) uint64 {
	sum := sha256.Sum256([]byte(id + "\x00" + name))
	return binary.BigEndian.Uint64(sum[:8])
}
