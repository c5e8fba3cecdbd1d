"""Devices, memory, the plan, and loading."""
