//! Lists the files below `migrations`, so that who adds one need not say it twice.

use std::{env, fs, path::Path};

fn main() {
    let directory = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("cargo says where")).join("migrations");
    println!("cargo::rerun-if-changed={}", directory.display());
    let mut files = Vec::new();
    for folder in ["", "steps", "code", "adopt"] {
        let found = fs::read_dir(directory.join(folder)).expect("migrations can be read");
        for file in found.map(|file| file.expect("migrations can be read").path()) {
            if let Some(name) = file.file_name().and_then(|name| name.to_str()?.strip_suffix(".sql")) {
                let name = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
                files.push(format!("    ({name:?}, include_str!({file:?})),\n"));
            }
        }
    }
    files.sort();
    let list = format!("/// All files, by name.\nconst FILES: &[(&str, &str)] = &[\n{}];\n", files.concat());
    fs::write(Path::new(&env::var("OUT_DIR").expect("cargo says where")).join("files.rs"), list)
        .expect("the list can be written");
}
