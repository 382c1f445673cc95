"""The emulated kube-apiserver: objects, admission, aggregation and what kubectl needs."""
