"""A whole cluster on one machine: an emulated control plane around real workers and the two real services."""
