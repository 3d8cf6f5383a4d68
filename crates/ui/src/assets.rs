//! What pages load besides themselves.

use std::sync::LazyLock;

use axum::http::{
    HeaderName,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use sha2::{Digest, Sha256};

/// Where they are; whoever is not let in yet gets them, too.
pub(super) const PATHS: [&str; 3] = ["/style.css", "/script.js", "/icon.svg"];

const STYLE: &str = include_str!("assets/style.css");
const SCRIPT: &str = include_str!("assets/script.js");
const ICON: &str = include_str!("assets/icon.svg");

static VERSION: LazyLock<String> = LazyLock::new(|| {
    let digest = Sha256::new().chain_update(STYLE).chain_update(SCRIPT).chain_update(ICON).finalize();
    digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
});

/// Another one whenever one of them is another.
pub(super) fn version() -> &'static str {
    &VERSION
}

type Asset = ([(HeaderName, &'static str); 2], &'static str);

fn asset(content_type: &'static str, text: &'static str) -> Asset {
    // Its address has the version.
    ([(CONTENT_TYPE, content_type), (CACHE_CONTROL, "public, max-age=31536000, immutable")], text)
}

pub(super) async fn style() -> Asset {
    asset("text/css; charset=utf-8", STYLE)
}

pub(super) async fn script() -> Asset {
    asset("text/javascript; charset=utf-8", SCRIPT)
}

pub(super) async fn icon() -> Asset {
    asset("image/svg+xml", ICON)
}
