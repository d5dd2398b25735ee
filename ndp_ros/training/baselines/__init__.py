"""The off-policy learners, which need torch: TD3 over segments, and Dyn-E (TD3 in an embedding)."""
