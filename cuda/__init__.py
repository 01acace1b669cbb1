"""Native kernels: C sources with their contracts in the headers, and the libraries built from them."""
