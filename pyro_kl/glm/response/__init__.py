"""How a posterior moves with what it depends on."""
