package translate

// Get finds a resource; nil where there is none.
func (b *Builder) Get(k Key) *Resource { return b.out[k] }
