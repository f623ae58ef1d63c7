"""A finished chain as something others can load: a merged model, one adapter, or a GGUF file."""
