module github.com/marchproxy/marchproxy/bpf

go 1.26.0
