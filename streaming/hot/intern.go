package hot

import "unique"

// interner gives the canonical handle of a key. Keys of windows are kept for as long as the windows; their strings must not hold on to the event they were read from, and a
// key of one pointer is cheaper than four strings wherever the engine looks it up. What nothing refers to any more the garbage collector frees.
type interner[K comparable] struct{ recent map[K]unique.Handle[K] }

const recentKeys = 1 << 16

func newInterner[K comparable]() interner[K] {
	return interner[K]{map[K]unique.Handle[K]{}}
}

func (in interner[K]) handle(k K) unique.Handle[K] {
	h, ok := in.recent[k]
	if !ok {
		h = unique.Make(k) // copies the strings
		if len(in.recent) >= recentKeys {
			clear(in.recent)
		}
		in.recent[h.Value()] = h
	}
	return h
}

// keyCodec is the state form of a handle.
type keyCodec[K comparable] struct {
	append func(K, []byte) []byte
	decode func([]byte) (K, error)
}

// Append implements streaming.Codec.
func (c keyCodec[K]) Append(dst []byte, h unique.Handle[K]) []byte { return c.append(h.Value(), dst) }

// Decode implements streaming.Codec.
func (c keyCodec[K]) Decode(src []byte) (unique.Handle[K], error) {
	k, err := c.decode(src)
	return unique.Make(k), err
}
