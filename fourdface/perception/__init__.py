"""Faces in pictures: detection, landmarks, coefficients, gaze, matte; one interface, several backends."""
