//! Ring 3: what goes in comes out, and whatever stops it is told.

use vellum_mm::addr::VirtAddr;
use vellum_mm::machine::Access;
use vellum_mm::translate::x86_64::{NO_EXECUTE, WRITE};

use super::space::{DATA, Frames, Space};
use super::{Verdict, ensure};
use crate::arch::samples::Sample;
use crate::arch::user::{Context, Fx, Interrupt, Trap, run};
use crate::arch::{PhysicalMemory, cpu, paging, timer};

/// Two programs that take turns keep their registers, over system calls and page faults.
pub(super) fn registers(frames: &mut Frames) -> Verdict {
    let space = Space::new(frames);
    let pages = [DATA, VirtAddr(DATA.0 + 0x1000)];
    let mut programs = [0x1111_2222_3333_4444, 0x5555_6666_7777_8888].map(|seed| {
        let mut program = Space::program(Sample::Registers);
        program.rdi = seed;
        // Red zones apart: both use the same stack.
        program.rsp -= seed >> 52 & 0x400;
        program
    });
    for (program, page) in programs.iter_mut().zip(pages) {
        program.rsi = page.0;
    }
    let mut turns = |expected: [Trap; 2]| -> Verdict {
        for (program, expected) in programs.iter_mut().zip(expected) {
            let trap = run(program);
            ensure!(trap == expected, "{trap:?} instead of {expected:?} at {:#x}", program.rip);
        }
        Ok(())
    };
    // The counter starts with the machine.
    println!("@{{\"event\":\"measure\",\"name\":\"boot\",\"ns\":{}}}", cpu::nanos());
    turns([Trap::Syscall; 2])?;
    let fault =
        |page: VirtAddr| Trap::PageFault { address: page.0, access: Access::Write, present: false };
    turns(pages.map(fault))?;
    for page in pages {
        space.map(frames, page, WRITE | NO_EXECUTE);
    }
    turns([Trap::Syscall; 2])?;
    for program in &programs {
        let (call, verdict) = (program.rax, program.rdi);
        ensure!((call, verdict) == (2, 0), "call {call} with verdict {verdict}");
    }
    Ok(())
}

/// A fault tells address, access and whether something is there; once that is mended it is over.
pub(super) fn page_faults(frames: &mut Frames) -> Verdict {
    let space = Space::new(frames);
    let fault = |access, present| Trap::PageFault { address: DATA.0, access, present };
    let mut program = Space::program(Sample::Store);
    (program.rsi, program.rdi) = (DATA.0, 42);
    let mut expect = |expected: Trap| -> Verdict {
        let trap = run(&mut program);
        ensure!(trap == expected, "{trap:?} instead of {expected:?}");
        Ok(())
    };
    expect(fault(Access::Write, false))?;
    space.map(frames, DATA, NO_EXECUTE);
    expect(fault(Access::Write, true))?;
    // Twice the page moves to another frame while its translation is in use.
    let first = space.map(frames, DATA, WRITE | NO_EXECUTE);
    expect(Trap::Syscall)?;
    let second = space.map(frames, DATA, WRITE | NO_EXECUTE);
    paging::invalidate(DATA);
    expect(Trap::Syscall)?;
    let third = space.map(frames, DATA, WRITE | NO_EXECUTE);
    paging::invalidate_all();
    expect(Trap::Syscall)?;
    for frame in [first, second, third] {
        let mut bytes = [0; 8];
        PhysicalMemory.read(frame, 0, &mut bytes);
        ensure!(u64::from_le_bytes(bytes) == 42, "{frame} holds {bytes:?}");
    }
    let mut program = Space::program(Sample::Jump);
    program.rsi = DATA.0;
    let trap = run(&mut program);
    ensure!(trap == fault(Access::Execute, true), "{trap:?} for a jump to data");
    // The kernel's own addresses are there, but not for programs.
    let mut program = Space::program(Sample::Store);
    program.rsi = 0xffff_8000_0000_0000;
    let trap = run(&mut program);
    let expected = Trap::PageFault { address: program.rsi, access: Access::Write, present: true };
    ensure!(trap == expected, "{trap:?} for a store to the direct map");
    Ok(())
}

/// What a program may not do stops it and nothing else.
pub(super) fn exceptions(frames: &mut Frames) -> Verdict {
    Space::new(frames);
    let exception = |vector| Trap::Exception { vector, error: 0 };
    for (sample, vector) in [(Sample::Cli, 13), (Sample::Invalid, 6), (Sample::Breakpoint, 3)] {
        let trap = run(&mut Space::program(sample));
        ensure!(trap == exception(vector), "{trap:?} for {sample:?}");
    }
    let mut lost = Context::new(1 << 47, 0);
    let trap = run(&mut lost);
    ensure!(trap == exception(13), "{trap:?} outside of all addresses");
    let image = crate::arch::samples::code().as_ptr() as u64;
    let trap = run(&mut Context::new(image, 0));
    let fetch = Trap::PageFault { address: image, access: Access::Execute, present: true };
    ensure!(trap == fetch, "{trap:?} in the kernel's image");
    // Bits that the processor refuses would otherwise fault in the kernel.
    let mut odd = Space::program(Sample::Invalid);
    odd.fx = Fx::from_bytes(&[0xff; Fx::BYTES]);
    ensure!(odd.fx.bytes()[26..28] == [0; 2], "reserved bits are kept");
    let trap = run(&mut odd);
    ensure!(trap == exception(6), "{trap:?} with odd SSE state");
    // Ring 3 gets neither the ports nor the power to keep interrupts away.
    let mut greedy = Space::program(Sample::Cli);
    greedy.rflags = !0x100;
    let trap = run(&mut greedy);
    ensure!(trap == exception(13), "{trap:?} with all flags set");
    Ok(())
}

/// Measures what it takes to stop a program and let it go on: counter ticks, which under `-icount`
/// are instructions, those of the program included.
pub(super) fn costs(frames: &mut Frames) -> Verdict {
    const TIMES: u64 = 1000;
    Space::new(frames);
    let mut storing = Space::program(Sample::Store);
    storing.rsi = DATA.0;
    let fault = Trap::PageFault { address: DATA.0, access: Access::Write, present: false };
    for (name, mut program, expected) in [
        ("null syscall", Space::program(Sample::Syscalls), Trap::Syscall),
        ("page fault", storing, fault),
    ] {
        let start = cpu::counter();
        for _ in 0..TIMES {
            let trap = run(&mut program);
            ensure!(trap == expected, "{trap:?} instead of {expected:?}");
        }
        let ticks = (cpu::counter() - start) / TIMES;
        println!("@{{\"event\":\"measure\",\"name\":\"{name}\",\"ticks\":{ticks}}}");
    }
    Ok(())
}

/// A program that never calls is stopped by the timer, again and again, and goes on.
pub(super) fn timer(frames: &mut Frames) -> Verdict {
    Space::new(frames);
    let mut program = Space::program(Sample::Spin);
    timer::every(1_000_000);
    let start = cpu::nanos();
    for _ in 0..5 {
        let trap = run(&mut program);
        ensure!(trap == Trap::Interrupt(Interrupt::Timer), "{trap:?} instead of the timer");
    }
    // It wakes the kernel as well.
    cpu::idle();
    timer::stop();
    // A tick may come before the first instruction, but not five of them.
    ensure!(program.rdi > 0, "the program stands still");
    ensure!(cpu::nanos() > start, "time stands still");
    Ok(())
}
