"""Model families: modules, processors and conversions. No training code lives here."""
