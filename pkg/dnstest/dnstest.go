// Package dnstest is a DNS server for tests, on a port of its own.
package dnstest

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// Answer is what a server says of a name.
type Answer struct {
	// Addresses; none means that the name exists without any.
	Addresses []string
	// Services are what it answers a question for SRV with.
	Services []dnsmessage.SRVResource
	// Code instead of them: dnsmessage.RCodeNameError says that there is no such name.
	Code dnsmessage.RCode
	// Delay before the answer.
	Delay time.Duration
	// Silent gives none, SilentFor none to questions of this type.
	Silent    bool
	SilentFor dnsmessage.Type
}

// Server answers questions for A, AAAA and SRV.
type Server struct {
	// Addr is its host:port.
	Addr string

	conn net.PacketConn
	done sync.WaitGroup

	mu    sync.Mutex
	names map[string]Answer
	away  *Answer
	asked map[string]int
}

// Start runs a server on a free port of 127.0.0.1; [Server.Close] ends it. No name exists at first.
func Start() (*Server, error) {
	conn, err := (&net.ListenConfig{}).ListenPacket(context.Background(), "udp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Server{Addr: conn.LocalAddr().String(), conn: conn, names: map[string]Answer{}, asked: map[string]int{}}
	s.done.Go(s.serve)
	return s, nil
}

// Close ends it: from then on questions are refused by the machine.
func (s *Server) Close() error {
	err := s.conn.Close()
	s.done.Wait()
	return err
}

// Set says what a name is.
func (s *Server) Set(name string, a Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names[canonical(name)] = a
}

// Away has every question answered alike, until [Server.Back].
func (s *Server) Away(a Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = &a
}

// Back ends what Away began.
func (s *Server) Back() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = nil
}

// Asked counts the questions for a name.
func (s *Server) Asked(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[canonical(name)]
}

func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) + "." }

func (s *Server) serve() {
	b := make([]byte, 4096)
	for {
		n, from, err := s.conn.ReadFrom(b)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(b[:n]) != nil || len(m.Questions) != 1 {
			continue
		}
		if a := s.find(m.Questions[0].Name.String()); !a.Silent && a.SilentFor != m.Questions[0].Type {
			time.AfterFunc(a.Delay, func() { s.reply(m, a, from) })
		}
	}
}

func (s *Server) find(name string) Answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked[canonical(name)]++
	if s.away != nil {
		return *s.away
	}
	a, found := s.names[canonical(name)]
	if !found {
		a.Code = dnsmessage.RCodeNameError
	}
	return a
}

func (s *Server) reply(m dnsmessage.Message, a Answer, to net.Addr) {
	q := m.Questions[0]
	m = dnsmessage.Message{
		Header: dnsmessage.Header{
			ID: m.ID, Response: true, Authoritative: true, RecursionDesired: true, RecursionAvailable: true, RCode: a.Code,
		},
		Questions: m.Questions,
	}
	for _, text := range a.Addresses {
		ip := netip.MustParseAddr(text)
		h := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1}
		switch {
		case ip.Is4() && q.Type == dnsmessage.TypeA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: ip.As4()}})
		case ip.Is6() && q.Type == dnsmessage.TypeAAAA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: ip.As16()}})
		}
	}
	for _, s := range a.Services {
		if q.Type == dnsmessage.TypeSRV {
			h := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1}
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &s})
		}
	}
	raw, err := m.Pack()
	if err != nil {
		panic(err) // a test's answer that is none
	}
	_, _ = s.conn.WriteTo(raw, to) // who asked may be gone, and so may the server
}
