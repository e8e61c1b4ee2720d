// Turns a signal that a kernel raised (a guard page, a misaligned vector) into the kernel's end:
// the faulting thread goes on at the driver's own stack. Installed only while work runs, and
// whatever handled these signals before (a JavaScript engine uses them) gets those of all others.
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

extern "C" {
/// The stack to go on at, or 0 where the signal is not a kernel's (zig/emulator/kernel.zig).
uintptr_t bxl_host_fault(int signal, uintptr_t address, int is_write);
void bxl_fibre_jump(uintptr_t target);
void bxl_host_faults_begin(void);
void bxl_host_faults_end(void);
}

namespace {

constexpr int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP};
constexpr int signal_count = sizeof(signals) / sizeof(signals[0]);
struct sigaction before[signal_count];
stack_t stack_before;
// A kernel that overflows its fibre's stack needs another one to hear of it.
alignas(64) unsigned char handler_stack[64 << 10];

void passOn(int signal, siginfo_t* info, void* context) {
    for (int i = 0; i < signal_count; i++) {
        if (signals[i] != signal) continue;
        const struct sigaction& old = before[i];
        if (old.sa_flags & SA_SIGINFO) return old.sa_sigaction(signal, info, context);
        if (old.sa_handler != SIG_DFL && old.sa_handler != SIG_IGN) return old.sa_handler(signal);
        // The instruction is tried again, and the process ends as it would have.
        sigaction(signal, &old, nullptr);
    }
}

void handle(int signal, siginfo_t* info, void* context) {
    ucontext_t* machine = (ucontext_t*)context;
#if defined(__x86_64__)
    const int is_write = machine->uc_mcontext.gregs[REG_ERR] >> 1 & 1;
    // A misaligned vector is a protection fault without an address.
    const bool is_misaligned = signal == SIGSEGV && info->si_code == SI_KERNEL;
    const uintptr_t target = bxl_host_fault(
        is_misaligned ? SIGILL : signal, (uintptr_t)info->si_addr, is_write
    );
    if (target == 0) return passOn(signal, info, context);
    machine->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)&bxl_fibre_jump;
    machine->uc_mcontext.gregs[REG_RDI] = (greg_t)target;
    machine->uc_mcontext.gregs[REG_RSP] = (greg_t)target;
#elif defined(__aarch64__)
    const uintptr_t target = bxl_host_fault(signal, (uintptr_t)info->si_addr, -1);
    if (target == 0) return passOn(signal, info, context);
    machine->uc_mcontext.pc = (uintptr_t)&bxl_fibre_jump;
    machine->uc_mcontext.regs[0] = target;
    machine->uc_mcontext.sp = target;
#endif
}

}  // namespace

void bxl_host_faults_begin(void) {
    stack_t ours;
    memset(&ours, 0, sizeof(ours));
    ours.ss_sp = handler_stack;
    ours.ss_size = sizeof(handler_stack);
    sigaltstack(&ours, &stack_before);
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_sigaction = handle;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (int i = 0; i < signal_count; i++) sigaction(signals[i], &action, &before[i]);
}

void bxl_host_faults_end(void) {
    for (int i = 0; i < signal_count; i++) sigaction(signals[i], &before[i], nullptr);
    sigaltstack(&stack_before, nullptr);
}
