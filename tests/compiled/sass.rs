//! The listing of `cuobjdump -sass`.

use std::collections::BTreeMap;

/// The mnemonics of each kernel, with how often each occurs, by target and kernel.
pub type Listing = BTreeMap<(String, String), BTreeMap<String, usize>>;

/// Reads a listing of a fatbin: per target `arch = sm_90a`, per kernel `Function : name`, then one
/// instruction a line.
pub fn parse(text: &str) -> Listing {
    let mut listing = Listing::new();
    let mut target = String::new();
    let mut kernel = None;
    for line in text.lines().map(str::trim) {
        if let Some(arch) = line.strip_prefix("arch = sm_") {
            target = arch.to_string();
            kernel = None;
        } else if let Some(name) = line.strip_prefix("Function : ") {
            let key = (target.clone(), name.to_string());
            listing.entry(key.clone()).or_default();
            kernel = Some(key);
        } else if let Some(mnemonic) = mnemonic(line)
            && let Some(instructions) = kernel.as_ref().and_then(|key| listing.get_mut(key))
        {
            *instructions.entry(mnemonic.to_string()).or_default() += 1;
        }
    }
    listing
}

/// `LDG.E.128` of `/*0070*/ @!P0 LDG.E.128 R4, [R2.64] ; /* 0x... */`.
fn mnemonic(line: &str) -> Option<&str> {
    let (address, rest) = line.strip_prefix("/*")?.split_once("*/")?;
    if address.starts_with([' ', '0']) && address.contains('x') {
        return None;
    }
    let mut words = rest.split_whitespace();
    let first = words.next()?;
    let word = if first.starts_with('@') {
        words.next()?
    } else {
        first
    };
    let word = word.trim_end_matches(';');
    word.starts_with(|letter: char| letter.is_ascii_uppercase())
        .then_some(word)
}

/// Whether a mnemonic is the instruction `pattern` with all of its modifiers, in this order, and
/// perhaps others: `LDG.128` is `LDG.E.128` and `LDG.E.NA.128.CONSTANT`.
pub fn matches(pattern: &str, mnemonic: &str) -> bool {
    let mut parts = mnemonic.split('.');
    let mut wanted = pattern.split('.');
    parts.next() == wanted.next() && wanted.all(|modifier| parts.any(|part| part == modifier))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
Fatbin elf code:
================
arch = sm_90a
code version = [1,8]

\tcode for sm_90a
\t.target\tsm_90a

\t\tFunction : softmax
\t.headerflags\t@\"EF_CUDA_SM90\"
        /*0000*/                   LDC R1, c[0x0][0x28] ;                         /* 0x00000a00ff017b82 */
                                                                                  /* 0x000fe20000000800 */
        /*0030*/               @P0 EXIT ;                                         /* 0x000000000000094d */
        /*0070*/                   LDG.E.128 R4, [R2.64] ;                        /* 0x0000000402047981 */
        /*0080*/              @!P1 LDG.E.128 R8, [R2.64+0x10] ;                   /* 0x0000000402047981 */
        /*0090*/                   EXIT;                                          /* 0x000000000000794d */
\t\t..........

\t\tFunction : empty
\t\t..........

Fatbin ptx code:
================
arch = sm_80
";

    #[test]
    fn instructions_are_counted_by_target_and_kernel() {
        let listing = parse(TEXT);
        assert_eq!(listing.len(), 2);
        let softmax = &listing[&("90a".to_string(), "softmax".to_string())];
        let counted: Vec<_> = softmax
            .iter()
            .map(|(name, count)| (name.as_str(), *count))
            .collect();
        assert_eq!(counted, [("EXIT", 2), ("LDC", 1), ("LDG.E.128", 2)]);
        assert!(listing[&("90a".to_string(), "empty".to_string())].is_empty());
    }

    #[test]
    fn patterns_name_an_instruction_and_some_of_its_modifiers() {
        assert!(matches("LDG.128", "LDG.E.128"));
        assert!(matches("LDG.E.128", "LDG.E.NA.128.CONSTANT"));
        assert!(matches("LDL", "LDL.LU"));
        assert!(!matches("LDG.128", "LDG.E.64"));
        assert!(!matches("LDG", "LDGSTS.E"));
        assert!(!matches("LDG.128.E", "LDG.E.128"));
    }
}
