// A handler in TypeScript, of nothing but Node.js.
//
// The worker posts each event as a CloudEvent and takes the answer as what is to be written: all of it in one transaction, once, however often the
// event is delivered. The handler says no more than whether something can be tried again:
//
//     2xx                      handled; the body names the operations
//     408, 425, 429, 5xx       may pass: tried again (Retry-After is kept to)
//     any other status         does not pass: dead letter and ticket

import { createServer, type IncomingMessage } from "node:http";

const caches = process.env["AUTONOMY_CACHES_URL"] ?? "http://127.0.0.1:8001";

interface Ticket {
  id: string;
  customerNumber: string;
  subject: string;
}

interface Customer {
  id: string;
  contract: "basic" | "premium";
}

/** One operation, as `/api/transactions` takes it. */
type Operation =
  | { op: "create"; model: string; entity: string; object: Record<string, unknown> }
  | { op: "patch"; model: string; entity: string; id: string; object: Record<string, unknown> };

/** It may pass. */
class Retryable extends Error {}

/** It does not pass by itself: somebody must look. */
class NonRetryable extends Error {}

/** What is to be written for a new ticket. */
async function triage(ticket: Ticket): Promise<Operation[]> {
  const customer = await lookUp<Customer>("customers", "number", ticket.customerNumber);
  if (customer === null) {
    throw new NonRetryable(`there is no customer ${ticket.customerNumber}`);
  }
  const urgent = customer.contract === "premium" || ticket.subject.toLowerCase().includes("down");
  return [
    { op: "patch", model: "desk", entity: "Ticket", id: ticket.id, object: { priority: urgent ? "urgent" : "normal" } },
    { op: "create", model: "desk", entity: "Assignment", object: { ticketId: ticket.id, team: urgent ? "first-aid" : "service" } },
  ];
}

/** An object of one of the service's caches, or null. */
async function lookUp<T>(cache: string, member: string, value: string): Promise<T | null> {
  const query = new URLSearchParams({ [member]: value });
  const answer = await fetch(`${caches}/caches/${cache}?${query}`, { signal: AbortSignal.timeout(2000) }).catch((reason: unknown) => {
    throw new Retryable(`the cache ${cache} can't be asked: ${String(reason)}`);
  });
  if (answer.status === 404) {
    return null;
  }
  if (!answer.ok) {
    throw new Retryable(`the cache ${cache} answered ${answer.status}`);
  }
  return (await answer.json()) as T;
}

async function handle(request: IncomingMessage): Promise<Operation[]> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) {
    chunks.push(chunk as Buffer);
  }
  const body: unknown = JSON.parse(Buffer.concat(chunks).toString("utf8"));
  if (request.headers["content-type"]?.startsWith("application/cloudevents-batch+json")) {
    // Of a service with `batch`: all events of a group, and one transaction for them.
    const events = body as { data: Ticket }[];
    return (await Promise.all(events.map((event) => triage(event.data)))).flat();
  }
  return triage(body as Ticket);
}

const server = createServer((request, response) => {
  handle(request)
    .then((operations) => ({ status: 200, body: { operations } as unknown }))
    .catch((error: unknown) => ({ status: error instanceof NonRetryable ? 422 : 503, body: { detail: String(error) } as unknown }))
    .then(({ status, body }) => {
      response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
    });
});
server.listen(Number(process.env["PORT"] ?? 8000), "127.0.0.1");
// Kubernetes asks it to stop like that; what is under way is answered first.
process.once("SIGTERM", () => server.close());
