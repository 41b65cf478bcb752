"""What a trained network makes of videos: labels, timelines, attention; without Lightning."""
