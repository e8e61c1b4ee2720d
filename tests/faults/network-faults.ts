/**
 * A hub that cuts, stalls, lies or refuses.
 */
import type { Fault as HubFault, HubRequest, HubServer } from "../support/hub-server.ts";
import type { Fault } from "./fault.ts";

export function networkFaults(hub: HubServer): readonly Fault[] {
  const answers = (
    name: string,
    fault: (request: HubRequest, count: number) => HubFault | undefined,
    ends: RegExp | null,
  ): Fault => ({
    ...{ name, ends },
    apply(run) {
      let count = 0;
      hub.fault = (request) => fault(request, count++);
      run.mended.push(() => {
        hub.fault = () => undefined;
      });
    },
  });
  const ofFile = (fault: HubFault) => (request: HubRequest) => (request.isCdn ? fault : undefined);
  const once = (fault: HubFault) => {
    return ({ isCdn }: HubRequest, count: number) => (isCdn && count < 6 ? fault : undefined);
  };
  return [
    answers("a download is cut once", once({ cutAfter: 1_000_000 }), null),
    answers("every answer is cut", ofFile({ cutAfter: 0 }), /^error: .*/),
    answers("a download stalls once", once({ stallAfter: 1_000_000 }), null),
    answers("the hub has other bytes", ofFile({ body: Buffer.alloc(3_000_000) }), /^error: .*/),
    answers(
      "the hub answers 500 once",
      (_, count) => (count === 0 ? { status: 500 } : undefined),
      null,
    ),
    answers("the hub answers 500", () => ({ status: 500 }), /^error: .*500/),
    answers("the hub answers 403", ofFile({ status: 403 }), /^error: .*403/),
    answers(
      "the hub lists nonsense",
      ({ path }) => (path.includes("/tree/") ? { body: "[{}" } : undefined),
      /^error: /,
    ),
    answers(
      "the hub's list never ends",
      ({ path }) => (path.includes("/tree/") ? { isEndless: true } : undefined),
      /^error: /,
    ),
    answers("ranges are ignored", ofFile({ ignoresRange: true }), null),
  ];
}
