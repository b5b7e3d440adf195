//! PE images small enough to read: headers of 512 bytes, sections aligned to 512.

/// A PE32+ image for x86-64 with these sections and five data directories.
pub(crate) fn image(sections: &[(&str, &[u8])]) -> Vec<u8> {
    const HEADERS: usize = 1024;
    let word = |value: usize| u32::try_from(value).unwrap().to_le_bytes();
    let mut out = vec![0; HEADERS];
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(0x3C, &word(0x40));
    put(0x40, b"PE\0\0");
    put(0x44, &0x8664_u16.to_le_bytes());
    put(0x46, &u16::try_from(sections.len()).unwrap().to_le_bytes());
    put(0x54, &(112_u16 + 5 * 8).to_le_bytes());
    let optional = 0x58;
    put(optional, &0x20B_u16.to_le_bytes());
    put(optional + 60, &word(HEADERS));
    put(optional + 108, &word(5));
    let mut body = Vec::new();
    for (i, (name, data)) in sections.iter().enumerate() {
        let at = optional + 112 + 5 * 8 + i * 40;
        let raw = data.len().next_multiple_of(512);
        put(at, name.as_bytes());
        put(at + 8, &word(data.len()));
        put(at + 16, &word(raw));
        put(at + 20, &word(HEADERS + body.len()));
        body.extend_from_slice(data);
        body.resize(body.len().next_multiple_of(512), 0);
    }
    out.extend(body);
    out
}

/// Sections of a small UKI; `.linux` is itself an image.
pub(crate) fn uki_sections() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        (".text", b"stub".to_vec()),
        (".osrel", b"ID=blf\n".to_vec()),
        (".cmdline", b"console=none quiet\n".to_vec()),
        (".uname", b"6.12.0".to_vec()),
        (".linux", image(&[(".text", b"kernel")])),
        (".initrd", b"INITRD".to_vec()),
    ]
}

/// The image of these sections.
pub(crate) fn uki(sections: &[(&str, Vec<u8>)]) -> Vec<u8> {
    image(&sections.iter().map(|(name, data)| (*name, &data[..])).collect::<Vec<_>>())
}
