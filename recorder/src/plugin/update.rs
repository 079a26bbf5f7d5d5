//! Which instructions read memory only to write it back: `add [rax], 1`, `lock cmpxchg`, `xchg`.
//!
//! A processor asks for the right to write before such an instruction reads, so that its page takes
//! one fault, not a read fault and then a write fault; for a page of a privately mapped file, one
//! copy and no mapping. QEMU reports two references, the load first. Told apart here, at translation,
//! the load counts as a store.

/// Longest instruction of x86-64.
const INSTRUCTION_BYTES_MAX: usize = 15;

/// Whether the instruction that `code` begins with writes the operand that it reads, if that is in
/// memory.
///
/// Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, appendix A (opcode map).
/// Prefixes of VEX and EVEX begin no such instruction: the bytes are no opcode here.
pub(crate) fn is_update(code: &[u8]) -> bool {
    let mut rest = code.iter().take(INSTRUCTION_BYTES_MAX).copied().skip_while(|&byte| {
        // Segments, operand and address size, lock and repeat.
        matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3)
    });
    let mut next = || rest.next();
    let opcode = match next() {
        // REX comes last of all prefixes.
        Some(0x40..=0x4f) => next(),
        opcode => opcode,
    };
    let Some(opcode) = opcode else { return false };
    if opcode == 0x0f {
        let Some(second) = next() else { return false };
        let operation = next().map(|modrm| modrm >> 3 & 7);
        return match second {
            // shld, shrd, bts, btr, btc; cmpxchg, xadd.
            0xa4 | 0xa5 | 0xac | 0xad | 0xab | 0xb3 | 0xbb | 0xb0 | 0xb1 | 0xc0 | 0xc1 => true,
            0xba => matches!(operation, Some(5..=7)), // bts, btr, btc; not bt
            0xc7 => operation == Some(1),             // cmpxchg8b and 16b
            _ => false,
        };
    }
    let operation = next().map(|modrm| modrm >> 3 & 7);
    match opcode {
        // add, or, adc, sbb, and, sub, xor to memory; not cmp (38, 39).
        0x00..=0x37 => opcode & 7 <= 1,
        0x80 | 0x81 | 0x83 => matches!(operation, Some(0..=6)), // the same; not cmp
        // xchg; rotations and shifts.
        0x86 | 0x87 | 0xc0 | 0xc1 | 0xd0..=0xd3 => true,
        0xf6 | 0xf7 => matches!(operation, Some(2 | 3)), // not, neg
        0xfe | 0xff => matches!(operation, Some(0 | 1)), // inc, dec
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_back_is_an_update() {
        for (code, name) in [
            (&[0x01, 0x08][..], "add [rax], ecx"),
            (&[0x48, 0x01, 0x08], "add [rax], rcx"),
            (&[0x48, 0x83, 0x00, 0x01], "add qword [rax], 1"),
            (&[0xf0, 0x48, 0x0f, 0xb1, 0x0a], "lock cmpxchg [rdx], rcx"),
            (&[0xf0, 0x0f, 0xc1, 0x07], "lock xadd [rdi], eax"),
            (&[0x87, 0x07], "xchg [rdi], eax"),
            (&[0xff, 0x07], "inc dword [rdi]"),
            (&[0x66, 0xc1, 0x27, 0x03], "shl word [rdi], 3"),
            (&[0xf7, 0x1f], "neg dword [rdi]"),
            (&[0x64, 0x80, 0x0c, 0x25, 0, 0, 0, 0, 1], "or byte fs:[0], 1"),
            (&[0x0f, 0xba, 0x2f, 0x03], "bts dword [rdi], 3"),
            (&[0x48, 0x0f, 0xc7, 0x0f], "cmpxchg16b [rdi]"),
        ] {
            assert!(is_update(code), "{name}");
        }
    }

    #[test]
    fn what_only_reads_or_only_writes_is_none() {
        for (code, name) in [
            (&[0x03, 0x08][..], "add ecx, [rax]"),
            (&[0x39, 0x08], "cmp [rax], ecx"),
            (&[0x48, 0x83, 0x38, 0x01], "cmp qword [rax], 1"),
            (&[0x8b, 0x07], "mov eax, [rdi]"),
            (&[0x89, 0x07], "mov [rdi], eax"),
            (&[0xf6, 0x07, 0x01], "test byte [rdi], 1"),
            (&[0xff, 0x17], "call [rdi]"),
            (&[0xff, 0x37], "push [rdi]"),
            (&[0x0f, 0xba, 0x27, 0x03], "bt dword [rdi], 3"),
            (&[0xf3, 0xa5], "rep movsd"),
            (&[0xc5, 0xf8, 0x77], "vzeroupper"),
            (&[0x0f, 0xb6, 0x07], "movzx eax, byte [rdi]"),
            (&[], "nothing"),
            (&[0xf0, 0x48], "prefixes alone"),
        ] {
            assert!(!is_update(code), "{name}");
        }
    }
}
