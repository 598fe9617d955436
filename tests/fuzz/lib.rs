//! What the fuzz targets call: the decoders as the ordinary tests have them.

#[path = "../decoders/mod.rs"]
pub mod decoders;
