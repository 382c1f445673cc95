"""Stands in for a node: pods run as processes on this machine."""
