//! Who may come in, and what for.

use std::{fmt, net::SocketAddr, sync::Arc};

use axum::{
    extract::ConnectInfo,
    http::{
        HeaderMap, HeaderName,
        header::{AUTHORIZATION, COOKIE},
        request::Parts,
    },
};
use doorbell::{Error, Result};
use sha2::{Digest, Sha256};

use super::network::Network;

/// The cookie that has the token.
pub(super) const TOKEN_COOKIE: &str = "doorbell_token";
/// Shorter ones can be guessed.
const TOKEN_CHARS_MIN: usize = 32;

/// What somebody may do besides looking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// See payloads, and look for messages by them.
    pub payload: bool,
    /// Change something.
    pub act: bool,
}

impl Rights {
    /// All.
    pub const ALL: Self = Self { payload: true, act: true };
    /// None: looking only.
    pub const LOOK: Self = Self { payload: false, act: false };

    /// Reads `look`, or several of `look`, `payload` and `act` with commas between.
    fn read(text: &str) -> Result<Self> {
        let mut rights = Self::LOOK;
        for word in text.split(',') {
            match word.trim() {
                "look" => {}
                "payload" => rights.payload = true,
                "act" => rights.act = true,
                other => return Err(Error::config(format!("there is no right {other:?}: use look, payload and act"))),
            }
        }
        Ok(rights)
    }
}

/// Who looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// For the audit log.
    pub name: String,
    /// What they may do.
    pub rights: Rights,
}

/// Who may come in.
#[derive(Clone)]
pub struct Access(Kind);

#[derive(Clone)]
enum Kind {
    Anybody(Person),
    Tokens(Vec<([u8; 32], Person)>),
    Header { name: HeaderName, proxies: Vec<Network> },
    Asked(Arc<Who>),
}

/// Says who asks.
type Who = dyn Fn(&Parts) -> Option<Person> + Send + Sync;

impl Access {
    /// Whoever reaches the server, as this person: for a server that only its user reaches.
    pub fn anybody(person: Person) -> Self {
        Self(Kind::Anybody(person))
    }

    /// Whoever has this token of at least 32 characters, as this person.
    ///
    /// # Errors
    /// [`Config`](doorbell::ErrorKind::Config) for a shorter one.
    pub fn token(token: &str, person: Person) -> Result<Self> {
        if token.chars().count() < TOKEN_CHARS_MIN {
            return Err(Error::config(format!("a token has at least {TOKEN_CHARS_MIN} characters")));
        }
        Ok(Self(Kind::Tokens(vec![(digest(token), person)])))
    }

    /// Whoever has one of the tokens of a text: a name, its rights (`look`, `look,payload`, `look,payload,act`) and the token on
    /// each line, or `sha256:` and the hexadecimal SHA-256 of the token. Empty lines and those that begin with `#` are passed over.
    ///
    /// # Errors
    /// [`Config`](doorbell::ErrorKind::Config) for a line that cannot be read, by its number, and where there is no token.
    pub fn tokens(text: &str) -> Result<Self> {
        let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
        let told = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let people =
            told.map(|(at, line)| read_line(line).map_err(|error| Error::config(format!("line {at}: {error}"))));
        let people = people.collect::<Result<Vec<_>>>()?;
        if people.is_empty() {
            return Err(Error::config("there is no token, so nobody could come in"));
        }
        Ok(Self(Kind::Tokens(people)))
    }

    /// Whomever a proxy names in this header, with all rights. Believed of these networks only, which needs the peers'
    /// addresses; see [`router`](super::router).
    ///
    /// # Errors
    /// [`Config`](doorbell::ErrorKind::Config) for what cannot be a header, and where no proxy is named.
    pub fn header(name: &str, proxies: Vec<Network>) -> Result<Self> {
        let name = name.parse().map_err(|_| Error::config(format!("{name:?} cannot be a header")))?;
        if proxies.is_empty() {
            return Err(Error::config("whose header is to be believed? Name the networks of the proxies"));
        }
        Ok(Self(Kind::Header { name, proxies }))
    }

    /// Whomever this function names for a request; `None` refuses.
    pub fn asked(who: impl Fn(&Parts) -> Option<Person> + Send + Sync + 'static) -> Self {
        Self(Kind::Asked(Arc::new(who)))
    }

    /// Who asks.
    pub(super) fn who(&self, request: &Parts) -> Option<Person> {
        match &self.0 {
            Kind::Anybody(person) => Some(person.clone()),
            Kind::Tokens(_) => self.holder(token_of(&request.headers)?),
            Kind::Header { name, proxies } => {
                let peer = request.extensions.get::<ConnectInfo<SocketAddr>>()?.0.ip();
                let mut given = request.headers.get_all(name).iter();
                let person = given.next()?.to_str().ok()?.trim();
                // Two are one that the proxy did not write.
                let trusted = given.next().is_none() && proxies.iter().any(|proxy| proxy.has(peer));
                (trusted && !person.is_empty()).then(|| Person { name: person.to_owned(), rights: Rights::ALL })
            }
            Kind::Asked(who) => who(request),
        }
    }

    /// Whose token it is. What is compared are digests: how long that takes tells nothing about a token.
    pub(super) fn holder(&self, token: &str) -> Option<Person> {
        let Kind::Tokens(people) = &self.0 else { return None };
        let given = digest(token);
        people.iter().find(|(digest, _)| *digest == given).map(|(_, person)| person.clone())
    }

    /// Whether a token is what lets people in.
    pub(super) fn takes_tokens(&self) -> bool {
        matches!(self.0, Kind::Tokens(_))
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.0 {
            Kind::Anybody(_) => "anybody",
            Kind::Tokens(_) => "tokens",
            Kind::Header { .. } => "header",
            Kind::Asked(_) => "asked",
        };
        write!(f, "Access({kind})")
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// A name, rights and a token. What is wrong with a token is said without it.
fn read_line(line: &str) -> Result<([u8; 32], Person)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [name, rights, token] = words[..] else {
        return Err(Error::config("write a name, its rights and its token, with spaces between"));
    };
    let person = Person { name: name.to_owned(), rights: Rights::read(rights)? };
    let digest = match token.strip_prefix("sha256:") {
        Some(hex) => from_hex(hex).ok_or_else(|| Error::config("after sha256: come 64 hexadecimal digits"))?,
        None if token.chars().count() < TOKEN_CHARS_MIN => {
            return Err(Error::config(format!("a token has at least {TOKEN_CHARS_MIN} characters")));
        }
        None => digest(token),
    };
    Ok((digest, person))
}

fn from_hex(hex: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&hex[at..at + 2], 16).ok()?;
    }
    Some(bytes)
}

/// Of programs the bearer's, of browsers the cookie's.
fn token_of(headers: &HeaderMap) -> Option<&str> {
    if let Some(bearer) = headers.get(AUTHORIZATION) {
        return bearer.to_str().ok()?.strip_prefix("Bearer ");
    }
    let cookies = headers.get_all(COOKIE).iter().filter_map(|cookies| cookies.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find_map(|(name, value)| (name == TOKEN_COOKIE).then_some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_tokens_names_people_and_their_rights() {
        let hashed = Sha256::digest("b".repeat(32)).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let text = format!("# ours\n\nanna look,payload,act {}\n  ben   look  sha256:{hashed}\n", "a".repeat(32));
        let access = Access::tokens(&text).unwrap();
        let anna = Person { name: "anna".to_owned(), rights: Rights::ALL };
        assert_eq!(access.holder(&"a".repeat(32)), Some(anna));
        let ben = Person { name: "ben".to_owned(), rights: Rights::LOOK };
        assert_eq!(access.holder(&"b".repeat(32)), Some(ben));
        assert_eq!(access.holder(&hashed), None);
        assert_eq!(access.holder(""), None);
    }

    #[test]
    fn a_line_that_cannot_be_read_is_named_by_its_number_and_without_its_token() {
        let long = "t".repeat(40);
        for (text, wrong) in [
            ("", "no token"),
            ("anna look short", "line 1"),
            (&*format!("\nanna {long}"), "line 2"),
            (&*format!("anna see {long}"), "no right \"see\""),
            ("anna look sha256:12", "64 hexadecimal digits"),
            (&*format!("anna look sha256:{}", "é".repeat(32)), "64 hexadecimal digits"),
        ] {
            let error = Access::tokens(text).unwrap_err().to_string();
            assert!(error.contains(wrong), "{text:?}: {error}");
            assert!(!error.contains("short") && !error.contains(&long), "{error}");
        }
    }
}
