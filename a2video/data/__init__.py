"""Clip-level building blocks for video data: lists, samplers, readers, transforms, data set."""
