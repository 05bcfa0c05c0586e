//! Images without a C library, and without anything.
