"""Measures the bring-up of a cluster and the endpoint that it serves."""
