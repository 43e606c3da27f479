package laststate

import (
	"bytes"
	"encoding/gob"

	"github.com/marchproxy/marchproxy/pkg/locality"
)

// Latency is how soon a place of a service's endpoints answers Envoys at a place. The names of the fields are those of
// the file.
type Latency struct {
	Service      string
	From, To     locality.Place
	Milliseconds float64
}

const latencySuffix = ".latencies"

var latencyFile = []byte("latencies")

// SaveLatencies writes the latencies by which places are ordered, sealed.
func (f *File) SaveLatencies(all []Latency) error {
	var plain bytes.Buffer
	if err := gob.NewEncoder(&plain).Encode(all); err != nil {
		return err
	}
	return f.writeBeside(latencySuffix, latencyFile, plain.Bytes())
}

// Latencies are those last written; none where there are none, or where this key does not open them: they are measured
// again.
func (f *File) Latencies() ([]Latency, error) {
	plain, err := f.readBeside(latencySuffix, latencyFile)
	if plain == nil || err != nil {
		return nil, err
	}
	var all []Latency
	if err := gob.NewDecoder(bytes.NewReader(plain)).Decode(&all); err != nil {
		return nil, nil //nolint:nilerr // of another version of this program
	}
	return all, nil
}
