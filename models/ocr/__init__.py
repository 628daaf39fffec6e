"""Optical character recognition: several engines behind `models.base.TextRecognizer`."""
