"""Admission webhook on scale updates: drains the cheapest workers before their pods are deleted."""
