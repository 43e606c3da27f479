package certificate

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"time"
)

// Soon is how long before its end a certificate is warned of where nothing else is set.
const Soon = 14 * 24 * time.Hour

// Dates are when a chain serves.
type Dates struct {
	NotBefore, NotAfter time.Time
	// Of is the certificate whose dates they are, "" for the leaf.
	Of string
}

// DatesOf are those of a chain as it is presented: from when all of it is good until the first of it ends,
// leaving out roots, which clients bring. Of a bundle that is only trusted they are its longest one's.
func DatesOf(chain []*x509.Certificate, presented bool) Dates {
	var d Dates
	for i, c := range chain {
		of := ""
		if i > 0 {
			of = c.Subject.String()
		}
		root := bytes.Equal(c.RawSubject, c.RawIssuer)
		switch {
		case i == 0:
			d = Dates{c.NotBefore, c.NotAfter, of}
		case presented && !root && c.NotAfter.Before(d.NotAfter), !presented && c.NotAfter.After(d.NotAfter):
			d.NotAfter, d.Of = c.NotAfter, of
		}
		if presented && !root && c.NotBefore.After(d.NotBefore) {
			d.NotBefore = c.NotBefore
		}
	}
	return d
}

// Warning says what is wrong with the dates at a time, or will be soon: a sentence about the certificate, ""
// where nothing.
func (d Dates) Warning(now time.Time, soon time.Duration) string {
	const day = "2006-01-02 15:04 MST"
	who := ""
	if d.Of != "" {
		who = "its intermediate " + d.Of + " "
	}
	switch left := d.NotAfter.Sub(now); {
	case left < 0:
		return who + "has ended on " + d.NotAfter.UTC().Format(day) + ", so that clients refuse it; renew it"
	case now.Before(d.NotBefore):
		return "is not valid before " + d.NotBefore.UTC().Format(day) + ", so that clients refuse it until then; look at " +
			"the clock of who issued it"
	case left < soon:
		return fmt.Sprintf("%sends on %s, in %s; renew it", who, d.NotAfter.UTC().Format(day), span(left))
	}
	return ""
}

func span(d time.Duration) string {
	if days := int(d / (24 * time.Hour)); days > 1 {
		return fmt.Sprintf("%d days", days)
	}
	return fmt.Sprintf("%d hours", int(d/time.Hour))
}

// OrderWarning says that a chain that is presented is not in TLS' order, each certificate signed by the next
// (RFC 8446 §4.4.2); "" where it is. Envoy presents it as it is, and some clients refuse it.
func OrderWarning(chain []*x509.Certificate) string {
	for i := 1; i < len(chain); i++ {
		if !bytes.Equal(chain[i-1].RawIssuer, chain[i].RawSubject) {
			return fmt.Sprintf(
				"is out of order: its certificate %d (%s) did not issue the one before, and some clients refuse that; put the "+
					"leaf first and then each one's issuer",
				i+1,
				chain[i].Subject,
			)
		}
	}
	return ""
}
