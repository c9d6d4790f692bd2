"""Tests of the pack inside a real ComfyUI server, on the CPU, with tiny random checkpoints.

A package, so that its helper modules are imported relatively: a bare `server` or `client` on `sys.path` would be
mistaken for ComfyUI's own modules of those names.
"""
