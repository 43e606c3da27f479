package certificate_test

import (
	"testing"

	"github.com/marchproxy/marchproxy/pkg/certificate"
)

// TestPlaceholder: Envoy would present one, with its own key, and it is told from every other.
func TestPlaceholder(t *testing.T) {
	chain, key, err := certificate.Placeholder()
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := certificate.Leaf(chain)
	if err != nil {
		t.Fatal(err)
	}
	if err := certificate.Presentable(leaf); err != nil {
		t.Error(err)
	}
	if err := certificate.CheckKey(chain, key); err != nil {
		t.Error(err)
	}
	if !certificate.IsPlaceholder(leaf) || len(leaf.DNSNames) > 0 {
		t.Errorf("%v with the names %v", leaf.Subject, leaf.DNSNames)
	}
	other, _, err := certificate.Placeholder()
	if err != nil || other == chain {
		t.Errorf("two placeholders are the same (%v)", err)
	}
	leaf.Subject.CommonName = "shop.example.com"
	if certificate.IsPlaceholder(leaf) {
		t.Error("a certificate for shop.example.com is taken for a placeholder")
	}
}
