"""The engine: ready stages go to slots of a backend, each made once, whatever fails in between."""
