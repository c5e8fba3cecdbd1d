"""The engines that can compute the Llama, by the names that `--engine` takes."""

ENGINES = ("auto", "torch", "bitsandbytes", "llama")
"""auto is the fastest for the device; llama is llama.cpp, with pandacli[llama] installed."""

RAY = "ray"
"""What `panda batch` takes beside these: each machine of a cluster computes as with auto."""
