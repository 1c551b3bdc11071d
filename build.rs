//! Tells cargo that the migrations are compiled in, so that a new file causes a rebuild.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
