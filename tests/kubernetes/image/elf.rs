//! Does a binary run alone, or does it need a dynamic linker beside it?

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// The kind of program header that names the dynamic linker (elf(5)).
const PT_INTERP: u32 = 3;

/// True for a binary that can be the only file of an image.
pub(crate) fn is_static(path: &Path) -> Result<bool> {
    Ok(!names_linker(&fs::read(path)?).with_context(|| format!("read {} as ELF", path.display()))?)
}

/// Reads 64-bit little-endian ELF, which is what every machine that runs Kubernetes here has.
fn names_linker(binary: &[u8]) -> Result<bool> {
    ensure!(binary.starts_with(b"\x7fELF\x02\x01"), "it is no 64-bit little-endian ELF binary");
    let table = usize::try_from(u64::from_le_bytes(bytes(binary, 32)?))?;
    let size = usize::from(u16::from_le_bytes(bytes(binary, 54)?));
    let count = usize::from(u16::from_le_bytes(bytes(binary, 56)?));
    for number in 0..count {
        if u32::from_le_bytes(bytes(binary, table + number * size)?) == PT_INTERP {
            return Ok(true);
        }
    }
    Ok(false)
}

fn bytes<const N: usize>(binary: &[u8], at: usize) -> Result<[u8; N]> {
    let end = at.checked_add(N).context("an offset is out of range")?;
    Ok(binary.get(at..end).context("it is cut short")?.try_into()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_a_script_and_a_half_binary_from_a_binary() {
        assert!(names_linker(b"#!/bin/sh\n").is_err());
        let own = fs::read("/proc/self/exe").unwrap();
        assert!(names_linker(&own[..40]).is_err());
        // Tests are linked dynamically, unless somebody builds everything statically.
        assert_eq!(names_linker(&own).unwrap(), cfg!(not(target_feature = "crt-static")));
    }
}
