"""Sources of the native kernels (C++ and CUDA), shipped so that they can be built on the user's machine."""
