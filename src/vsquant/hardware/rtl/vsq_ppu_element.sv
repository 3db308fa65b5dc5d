// One element's code: q = sign(t) * min(qmax, floor((|t| + sigma*2^(F-1)) / (sigma*2^F))) from its magnitude, its sign
// and its vector's sigma; QMAX_BITS + 1 stages.
`default_nettype none
module vsq_ppu_element #(
    parameter int MAGNITUDE_BITS = 23,
    parameter int FRACTION_BITS = 8,
    parameter int QMAX_BITS = 4,
    parameter int SIGMA_BITS = 4,
    parameter int CODE_BITS = 4
) (
    input  wire                       clk,
    input  wire                       enable,
    input  wire                       negative,
    input  wire  [MAGNITUDE_BITS-1:0] magnitude,
    input  wire  [SIGMA_BITS-1:0]     sigma,
    output logic [CODE_BITS-1:0]      code
);
  localparam int ROUNDED_BITS = ((MAGNITUDE_BITS > SIGMA_BITS + FRACTION_BITS) ? MAGNITUDE_BITS
                                                                               : SIGMA_BITS + FRACTION_BITS) + 1;
  localparam int NUMERATOR_BITS = ROUNDED_BITS - FRACTION_BITS;

  logic [NUMERATOR_BITS-1:0] numerator;
  logic [SIGMA_BITS-1:0]     denominator;
  logic [QMAX_BITS:0]        negatives;
  logic [QMAX_BITS-1:0]      quotient;

  assign code = negatives[QMAX_BITS] ? -(CODE_BITS'(quotient)) : CODE_BITS'(quotient);

  always_ff @(posedge clk) begin
    if (enable) begin
      numerator <= NUMERATOR_BITS'(
          (ROUNDED_BITS'(magnitude) + (ROUNDED_BITS'(sigma) << (FRACTION_BITS - 1))) >> FRACTION_BITS);
      denominator <= sigma;
      negatives <= {negatives[QMAX_BITS-1:0], negative};
    end
  end

  vsq_divider #(
      .NUMERATOR_BITS(NUMERATOR_BITS),
      .DENOMINATOR_BITS(SIGMA_BITS),
      .QUOTIENT_BITS(QMAX_BITS)
  ) u_divider (
      .clk(clk),
      .enable(enable),
      .numerator(numerator),
      .denominator(denominator),
      .quotient(quotient)
  );
endmodule
`default_nettype wire
