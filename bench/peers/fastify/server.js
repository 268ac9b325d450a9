// The Node peer: fastify, and ioredis that sends the commands of one loop tick as one pipeline.
import Fastify from "fastify";
import { Redis } from "ioredis";

const { PORT, REDIS_URL, RECORD_SHA } = process.env;
const REPLAYED = 1, DENIED = 2;

const redis = new Redis(REDIS_URL, { enableAutoPipelining: true });
const app = Fastify();

const schema = {
  body: {
    type: "object",
    required: ["user_id", "organization_id", "usage_type", "quantity"],
    properties: {
      user_id: { type: "string" },
      organization_id: { type: "string" },
      usage_type: { type: "string" },
      quantity: { type: "integer", minimum: 1 },
    },
  },
  response: {
    201: {
      type: "object",
      properties: {
        usage_id: { type: "string" },
        recorded_at: { type: "number" },
        quota_remaining: { type: "integer" },
      },
    },
  },
};

app.post("/api/v1/billing/usage", { schema }, async (request, reply) => {
  const key = request.headers["idempotency-key"];
  const { user_id, organization_id, usage_type, quantity } = request.body;
  const [outcome, remaining, at] = await redis.evalsha(
    RECORD_SHA, 4,
    "usage", "receipt:", `quota:${user_id}`, `quota:${organization_id}`,
    `${user_id}:${key}`, `${organization_id}:${user_id}`, usage_type, quantity, key,
  );
  if (outcome === DENIED) return reply.code(429).send({ quota_exceeded: true });
  if (outcome === REPLAYED) reply.header("Idempotent-Replayed", "true");
  return reply.code(201).send({ usage_id: key, recorded_at: at, quota_remaining: remaining });
});

await app.listen({ host: "127.0.0.1", port: Number(PORT) });
