module github.com/marchproxy/marchproxy/wasm-filters

go 1.26.0
