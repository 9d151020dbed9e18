"""The KL of two distributions: exact, bounded, estimated, compared with samples, checked."""
