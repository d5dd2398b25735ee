"""Kinova's Kortex arms (the Gen3 family): schema, wire, client, arm backend and emulator."""
