// min(floor(numerator / denominator), 2^QUOTIENT_BITS - 1), digit by digit: one quotient bit a stage, QUOTIENT_BITS
// stages, one division a cycle. 0 where the denominator is 0.
`default_nettype none
module vsq_divider #(
    parameter int NUMERATOR_BITS = 12,
    parameter int DENOMINATOR_BITS = 4,
    parameter int QUOTIENT_BITS = 4
) (
    input  wire                         clk,
    input  wire                         enable,
    input  wire  [NUMERATOR_BITS-1:0]   numerator,
    input  wire  [DENOMINATOR_BITS-1:0] denominator,
    output logic [QUOTIENT_BITS-1:0]    quotient
);
  // From denominator * 2^QUOTIENT_BITS on the quotient saturates, as it does for a remainder of only ones.
  localparam int REMAINDER_BITS = DENOMINATOR_BITS + QUOTIENT_BITS;
  localparam int COMPARED_BITS = (NUMERATOR_BITS > REMAINDER_BITS) ? NUMERATOR_BITS : REMAINDER_BITS;
  localparam int STAGES = QUOTIENT_BITS;

  logic [COMPARED_BITS-1:0]    widened;
  /* verilator lint_off UNUSEDSIGNAL */  // where there is one digit only
  logic [REMAINDER_BITS-1:0]   remainders   [0:STAGES-1];
  logic [DENOMINATOR_BITS-1:0] denominators [0:STAGES-1];
  /* verilator lint_on UNUSEDSIGNAL */
  logic [QUOTIENT_BITS-1:0]    quotients    [0:STAGES-1];

  assign widened = COMPARED_BITS'(numerator);

  for (genvar stage = 0; stage < STAGES; stage++) begin : g_digit
    localparam int DIGIT = STAGES - 1 - stage;
    logic [REMAINDER_BITS-1:0]   remainder;
    logic [DENOMINATOR_BITS-1:0] divisor;
    logic [QUOTIENT_BITS-1:0]    higher;
    logic [REMAINDER_BITS-1:0]   multiple;
    logic                        fits;

    if (stage == 0) begin : g_first
      assign divisor = denominator;
      assign higher = '0;
      assign remainder = ((widened >> QUOTIENT_BITS) >= COMPARED_BITS'(denominator)) ? '1 : REMAINDER_BITS'(widened);
    end else begin : g_next
      assign remainder = remainders[stage-1];
      assign divisor = denominators[stage-1];
      assign higher = quotients[stage-1];
    end
    assign multiple = REMAINDER_BITS'(divisor) << DIGIT;
    assign fits = divisor != '0 && remainder >= multiple;

    always_ff @(posedge clk) begin
      if (enable) begin
        remainders[stage] <= fits ? remainder - multiple : remainder;
        denominators[stage] <= divisor;
        quotients[stage] <= higher | (QUOTIENT_BITS'(fits) << DIGIT);
      end
    end
  end

  assign quotient = quotients[STAGES-1];
endmodule
`default_nettype wire
