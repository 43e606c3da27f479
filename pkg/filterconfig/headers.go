package filterconfig

import "encoding/binary"

// EncodeHeaders writes headers as proxy-wasm 0.2.1 hands a header map to a filter: how many there are, the lengths of each
// name and value, and then their bytes, each followed by a zero. All numbers are 32 bits, little-endian.
func EncodeHeaders(headers []Header) []byte {
	size := 4
	for _, h := range headers {
		size += 10 + len(h.Name) + len(h.Value)
	}
	b := binary.LittleEndian.AppendUint32(make([]byte, 0, size), uint32(len(headers)))
	for _, h := range headers {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(h.Name)))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(h.Value)))
	}
	for _, h := range headers {
		b = append(append(b, h.Name...), 0)
		b = append(append(b, h.Value...), 0)
	}
	return b
}

// DecodeHeaders reads what [EncodeHeaders] writes, from a filter; nothing at all is no headers. It is stricter than Envoy,
// which reads neither the zeros nor what comes after the last of them, so that a filter's mistake is found in its tests.
func DecodeHeaders(b []byte) (headers []Header, valid bool) {
	if len(b) == 0 {
		return nil, true
	}
	if len(b) < 4 {
		return nil, false
	}
	n := binary.LittleEndian.Uint32(b)
	if uint64(n) > uint64(len(b)-4)/8 {
		return nil, false
	}
	lengths, data := b[4:4+8*n], b[4+8*n:]
	piece := func() (string, bool) {
		size := uint64(binary.LittleEndian.Uint32(lengths))
		if size >= uint64(len(data)) || data[size] != 0 {
			return "", false
		}
		text := string(data[:size])
		lengths, data = lengths[4:], data[size+1:]
		return text, true
	}
	for range n {
		name, first := piece()
		value, second := piece()
		if !first || !second {
			return nil, false
		}
		headers = append(headers, Header{name, value})
	}
	return headers, len(data) == 0
}
