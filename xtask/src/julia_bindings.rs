//! Generates the low-level Julia bindings (`julia/src/LibDGM.jl`) from the C header.
//!
//! The header is itself generated from the Rust source of `capi`, so both follow one source. Only
//! the C that cbindgen writes is understood; anything else is an error, never skipped, because a
//! declaration that is silently dropped would be missed first by a user.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

mod lexer {
    //! C tokens, with comments dropped and `#define NAME integer` set aside.

    /// The integer macros and the tokens of a header.
    pub type Lexed = (Vec<(String, String)>, Vec<String>);

    /// Splits a header into its integer macros and its tokens.
    pub fn lex(header: &str) -> Result<Lexed, String> {
        let text = preprocess(&strip_comments(header)?);
        let mut tokens = Vec::new();
        let mut rest = text.code.trim_start();
        while let Some(c) = rest.chars().next() {
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let len = if c == '"' {
                rest[1..].find('"').ok_or("string without an end")? + 2
            } else if word(c) {
                rest.find(|c| !word(c)).unwrap_or(rest.len())
            } else {
                c.len_utf8()
            };
            tokens.push(rest[..len].to_string());
            rest = rest[len..].trim_start();
        }
        Ok((text.macros, tokens))
    }

    fn strip_comments(text: &str) -> Result<String, String> {
        let (mut out, mut rest) = (String::new(), text);
        while let Some(at) = rest.find('/') {
            out.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(body) = rest.strip_prefix("/*") {
                let end = body.find("*/").ok_or("comment without an end")?;
                out.push(' ');
                rest = &body[end + 2..];
            } else if rest.starts_with("//") {
                rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
            } else {
                out.push('/');
                rest = &rest[1..];
            }
        }
        out.push_str(rest);
        Ok(out)
    }

    struct Preprocessed {
        code: String,
        macros: Vec<(String, String)>,
    }

    fn preprocess(text: &str) -> Preprocessed {
        let (mut code, mut macros) = (String::new(), Vec::new());
        let joined = text.replace("\\\n", " ");
        // One entry an open conditional: whether its lines are for C++ compilers only.
        let mut open: Vec<bool> = Vec::new();
        for line in joined.lines() {
            let Some(directive) = line.trim_start().strip_prefix('#') else {
                if !open.contains(&true) {
                    code.push_str(line);
                    code.push('\n');
                }
                continue;
            };
            let words: Vec<&str> = directive.split_whitespace().collect();
            match words.as_slice() {
                ["if" | "ifdef", rest @ ..] => open.push(rest.join(" ").contains("__cplusplus")),
                ["ifndef", ..] => open.push(false),
                ["else" | "elif", ..] => {
                    if let Some(last) = open.last_mut() {
                        *last = false;
                    }
                }
                ["endif", ..] => {
                    open.pop();
                }
                ["define", name, value] => {
                    if let Some(value) = integer(value) {
                        macros.push((name.to_string(), value));
                    }
                }
                _ => {}
            }
        }
        Preprocessed { code, macros }
    }

    /// The value of an integer literal, in decimal.
    pub fn integer(text: &str) -> Option<String> {
        let text = text.trim_matches(|c| c == '(' || c == ')');
        let digits = text.trim_end_matches(['u', 'U', 'l', 'L']);
        let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |d| ("-", d));
        let value = match digits.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok()?,
            None => digits.parse().ok()?,
        };
        Some(format!("{sign}{value}"))
    }
}

/// A type, a name, and how many elements when it is an array.
struct Field {
    name: String,
    ty: String,
}

enum Item {
    Opaque(String),
    Struct(String, Vec<Field>),
    Alias(String, String),
    Constants(Vec<(String, String)>),
    Function { name: String, returns: String, args: Vec<Field> },
}

/// Julia's keywords: a C name among them gets an underscore.
const KEYWORDS: &[&str] = &[
    "begin", "break", "catch", "const", "continue", "do", "else", "elseif", "end", "export", "finally",
    "for", "function", "global", "if", "import", "let", "local", "macro", "module", "quote", "return",
    "struct", "try", "using", "while",
];

fn identifier(name: &str) -> String {
    if KEYWORDS.contains(&name) { format!("{name}_") } else { name.to_string() }
}

/// The Julia spelling of a C type given as tokens (without the declared name).
fn julia_type(tokens: &[String]) -> Result<String, String> {
    let text = || tokens.join(" ");
    let constant = tokens.iter().any(|t| t == "const");
    let stars = tokens.iter().filter(|t| *t == "*").count();
    let base: Vec<&str> = tokens
        .iter()
        .map(String::as_str)
        .filter(|t| !matches!(*t, "const" | "struct" | "enum" | "*"))
        .collect();
    if base == ["char"] && constant && stars == 1 {
        return Ok("Cstring".to_string());
    }
    let base = match base.as_slice() {
        ["void"] => "Cvoid",
        ["char"] | ["uint8_t"] => "UInt8",
        ["bool"] => "Bool",
        ["int"] => "Cint",
        ["size_t"] | ["uintptr_t"] => "Csize_t",
        ["int8_t"] => "Int8",
        ["int16_t"] => "Int16",
        ["uint16_t"] => "UInt16",
        ["int32_t"] => "Int32",
        ["uint32_t"] => "UInt32",
        ["int64_t"] => "Int64",
        ["uint64_t"] => "UInt64",
        ["float"] => "Float32",
        ["double"] => "Float64",
        [name] if name.starts_with("dgm_") => name,
        _ => return Err(format!("unknown C type `{}`", text())),
    };
    Ok(format!("{}{base}{}", "Ptr{".repeat(stars), "}".repeat(stars)))
}

/// Reads `type name` or `type name[n]`.
fn field(tokens: &[String]) -> Result<Field, String> {
    let bad = || format!("cannot read the declaration `{}`", tokens.join(" "));
    let (declared, count) = match tokens {
        [head @ .., open, n, close] if open == "[" && close == "]" => (head, Some(n)),
        all => (all, None),
    };
    let (name, ty) = declared.split_last().ok_or_else(bad)?;
    let ty = julia_type(ty)?;
    let ty = match count {
        Some(n) => format!("NTuple{{{}, {ty}}}", lexer::integer(n).ok_or_else(bad)?),
        None => ty,
    };
    Ok(Field { name: identifier(name), ty })
}

/// Splits at `separator`, outside of brackets, and drops an empty last part.
fn split<'a>(tokens: &'a [String], separator: &str) -> Vec<&'a [String]> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (i, t) in tokens.iter().enumerate() {
        match t.as_str() {
            "(" | "{" | "[" => depth += 1,
            ")" | "}" | "]" => depth -= 1,
            t if t == separator && depth == 0 => {
                parts.push(&tokens[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    if start < tokens.len() {
        parts.push(&tokens[start..]);
    }
    parts
}

fn constants(body: &[String]) -> Result<Item, String> {
    let mut next = 0i64;
    let mut all = Vec::new();
    for variant in split(body, ",") {
        if let [_, equals, value @ ..] = variant {
            let value = lexer::integer(&value.concat()).filter(|_| equals == "=");
            let value = value.ok_or_else(|| format!("cannot read the value of `{}`", variant.join(" ")))?;
            next = value.parse().map_err(|e| format!("{value}: {e}"))?;
        }
        all.push((variant[0].clone(), next.to_string()));
        next += 1;
    }
    Ok(Item::Constants(all))
}

/// Reads one declaration; `tokens` ends before its `;`.
fn declaration(tokens: &[String]) -> Result<Option<Item>, String> {
    let words: Vec<&str> = tokens.iter().map(String::as_str).collect();
    let body = || -> Result<&[String], String> {
        let open = words.iter().position(|w| *w == "{").ok_or("no body")?;
        let close = words.iter().rposition(|w| *w == "}").ok_or("body without an end")?;
        Ok(&tokens[open + 1..close])
    };
    let item = match words.as_slice() {
        [] | ["_Static_assert", ..] => return Ok(None),
        ["typedef", "struct", _, name] => Item::Opaque(name.to_string()),
        ["typedef", "struct", .., "}", name] | ["struct", name, "{", ..] => {
            let fields = split(body()?, ";").into_iter().map(field).collect::<Result<_, _>>()?;
            Item::Struct(name.to_string(), fields)
        }
        ["typedef", "enum", .., "}", _] | ["enum", .., "}"] => constants(body()?)?,
        // A function pointer: `typedef int32_t (*name)(...)`.
        ["typedef", .., ")"] => {
            let star = words.windows(2).position(|w| w == ["(", "*"]).ok_or("no function pointer")?;
            Item::Alias(words[star + 2].to_string(), "Ptr{Cvoid}".to_string())
        }
        ["typedef", .., name] => Item::Alias(name.to_string(), julia_type(&tokens[1..tokens.len() - 1])?),
        [.., ")"] => {
            let open = words.iter().position(|w| *w == "(").ok_or("function without arguments")?;
            let head = field(&tokens[..open])?;
            let inside = &tokens[open + 1..tokens.len() - 1];
            let inside = if inside == ["void"] { &[] } else { inside };
            let args = split(inside, ",").into_iter().map(field).collect::<Result<_, _>>()?;
            Item::Function { name: head.name, returns: head.ty, args }
        }
        _ => return Err(format!("unknown declaration `{}`", words.join(" "))),
    };
    Ok(Some(item))
}

/// Reads every declaration of a header, in order.
fn parse(header: &str) -> Result<Vec<Item>, String> {
    let (macros, tokens) = lexer::lex(header)?;
    let mut items = vec![Item::Constants(macros)];
    for tokens in split(&tokens, ";") {
        items.extend(declaration(tokens)?);
    }
    // cbindgen declares a struct forward where its definition comes later.
    let defined: BTreeSet<String> = items
        .iter()
        .filter_map(|i| if let Item::Struct(name, _) = i { Some(name.clone()) } else { None })
        .collect();
    items.retain(|i| !matches!(i, Item::Opaque(name) if defined.contains(name)));
    Ok(items)
}

/// The text of `LibDGM.jl` for the text of `dgm.h`.
///
/// # Errors
/// Names the declaration that is not understood.
pub fn generate(header: &str) -> Result<String, String> {
    let items = parse(header)?;
    let names: Vec<&str> = items
        .iter()
        .filter_map(|i| if let Item::Function { name, .. } = i { Some(name.as_str()) } else { None })
        .collect();
    if names.is_empty() {
        return Err("the header declares no function".to_string());
    }
    let mut out = String::from(
        "# Generated from include/dgm.h by `cargo run -p xtask -- header`. Do not edit.\n\n\
         \"The C interface as it is: one Julia function a C function, one type a C struct.\"\n\
         module LibDGM\n\nimport ..Library: @native\n",
    );
    let mut write = |text: String| writeln!(out, "{text}").map_err(|e| e.to_string());
    for item in &items {
        match item {
            Item::Constants(all) => {
                write(String::new())?;
                for (name, value) in all {
                    write(format!("const {name} = {value}"))?;
                }
            }
            Item::Opaque(name) => write(format!("\nmutable struct {name} end"))?,
            Item::Alias(name, ty) => write(format!("\nconst {name} = {ty}"))?,
            Item::Struct(name, fields) => {
                let fields: String = fields.iter().map(|f| format!("    {}::{}\n", f.name, f.ty)).collect();
                write(format!("\nstruct {name}\n{fields}end"))?;
            }
            Item::Function { .. } => {}
        }
    }
    // A function is called by its place in this list, so that its address is looked up once.
    write("\nconst SYMBOLS = (".to_string())?;
    for name in &names {
        write(format!("    :{name},"))?;
    }
    write(")".to_string())?;
    let mut index = 0;
    for item in &items {
        if let Item::Function { name, returns, args } = item {
            index += 1;
            let plain: Vec<&str> = args.iter().map(|a| a.name.as_str()).collect();
            let typed: Vec<String> = args.iter().map(|a| format!("{}::{}", a.name, a.ty)).collect();
            write(format!(
                "\n{name}({}) =\n    @native {index} {name}({})::{returns}",
                plain.join(", "),
                typed.join(", ")
            ))?;
        }
    }
    write("\nend".to_string())?;
    Ok(out)
}

/// Writes `julia/src/LibDGM.jl` from `include/dgm.h`, or with `check` only compares.
///
/// # Errors
/// A message for the terminal: an unreadable file, an unknown declaration, stale bindings.
pub fn run(root: &Path, check: bool) -> Result<(), String> {
    let (header, bindings) = (root.join("include/dgm.h"), root.join("julia/src/LibDGM.jl"));
    let read = |path: &Path| std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()));
    let wanted = generate(&read(&header)?).map_err(|e| format!("{}: {e}", header.display()))?;
    if !check {
        return std::fs::write(&bindings, wanted).map_err(|e| format!("{}: {e}", bindings.display()));
    }
    if read(&bindings)? == wanted {
        Ok(())
    } else {
        Err("julia/src/LibDGM.jl is stale: run `cargo run -p xtask -- header`".to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = r#"
/* A header; with "marks" in its comment. */
#ifndef DGM_H
#define DGM_H
#include <stdint.h>
#define DGM_ABI_VERSION 3
#define DGM_ERROR_NULL -100
#define DGM_EXPORT __attribute__((visibility("default")))
#ifdef __cplusplus
extern "C" {
#endif
typedef struct dgm_plan dgm_plan;
typedef struct dgm_tensor { void *data; int64_t *shape; uint8_t code, bits[2]; } dgm_tensor;
enum dgm_role { DGM_ROLE_COND = 0, DGM_ROLE_UNCOND, };
typedef int32_t (*dgm_model_fn)(void *ctx, const float *x);
// One line.
const char *dgm_version(void);
int32_t dgm_plan_compile(const struct dgm_tensor *end, dgm_plan **out, const char *path, dgm_model_fn fn);
#ifdef __cplusplus
}
#endif
#endif
"#;

    fn header() -> String {
        HEADER.replace("uint8_t code, bits[2]", "uint8_t code; uint8_t bits[2]")
    }

    #[test]
    fn declarations_become_julia() {
        let julia = generate(&header()).unwrap();
        for line in [
            "const DGM_ABI_VERSION = 3",
            "const DGM_ERROR_NULL = -100",
            "const DGM_ROLE_UNCOND = 1",
            "mutable struct dgm_plan end",
            "struct dgm_tensor\n    data::Ptr{Cvoid}\n    shape::Ptr{Int64}\n    code::UInt8\n    bits::NTuple{2, UInt8}\nend",
            "const dgm_model_fn = Ptr{Cvoid}",
            "dgm_version() =\n    @native 1 dgm_version()::Cstring",
            "dgm_plan_compile(end_, out, path, fn) =\n    @native 2 dgm_plan_compile(\
             end_::Ptr{dgm_tensor}, out::Ptr{Ptr{dgm_plan}}, path::Cstring, fn::dgm_model_fn)::Int32",
        ] {
            assert!(julia.contains(line), "{line}\nis not in\n{julia}");
        }
        assert!(!julia.contains("DGM_EXPORT"));
    }

    #[test]
    fn unknown_c_is_an_error() {
        assert!(generate(HEADER).unwrap_err().contains("uint8_t code ,"));
        assert!(generate("long dgm_f(void);").unwrap_err().contains("long"));
        assert!(generate("int32_t dgm_global;").unwrap_err().contains("unknown declaration"));
        assert!(generate("/* never closed").unwrap_err().contains("comment"));
        assert!(generate("").unwrap_err().contains("no function"));
    }
}
