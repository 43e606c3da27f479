package clusterkey

import (
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	for key, ok := range map[string]bool{
		"": false, "fifteen-letters": false, "sixteen--letters": true, strings.Repeat("k", Most): true,
		strings.Repeat("k", Most+1): false,
		"a key with spaces":         false, "a-key-with-ümlauts": false,
	} {
		err := Check(key)
		if (err == nil) != ok {
			t.Errorf("%q: %v", key, err)
		}
		if err != nil && key != "" && strings.Contains(err.Error(), key) {
			t.Errorf("the error repeats the key: %v", err)
		}
	}
}
