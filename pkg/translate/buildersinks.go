package translate

// collect has the clusters of the sinks built again that lead to another service, or to one that is built again.
func (w *work) collect() {
	now := collectors(w.gw)
	for _, s := range sinks {
		if s.cluster != "" && (now[s.cluster] != w.sinks[s.cluster] || w.services[now[s.cluster]]) {
			w.services[s.cluster] = true
		}
	}
	w.sinks = now
}

// serviceOf is the service that a cluster leads to, "" for a sink that is not in use.
func (b *Builder) serviceOf(cluster string) string {
	if IsSink(cluster) {
		return b.sinks[cluster]
	}
	return cluster
}

// used says whether anything is sent to a cluster.
func (b *Builder) used(cluster string) bool { return b.uses[cluster] > 0 || b.sinks[cluster] != "" }
