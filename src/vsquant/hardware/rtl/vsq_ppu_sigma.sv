// The vector scale: from the magnitudes of one vector, E a cycle, sigma = min(floor((alpha + qmax*2^(F-1)) / (qmax*2^F)),
// top), at least 1 where alpha > 0. `sigma` holds from SCALE_BITS + 3 enabled cycles after a vector's last beat until
// that of the next vector.
`default_nettype none
module vsq_ppu_sigma #(
    parameter int E = 2,
    parameter int MAGNITUDE_BITS = 23,
    parameter int FRACTION_BITS = 8,
    parameter int QMAX = 15,
    parameter int QMAX_BITS = 4,
    parameter int SCALE_BITS = 4
) (
    input  wire                         clk,
    input  wire                         rst,
    input  wire                         enable,
    input  wire                         valid,
    input  wire                         first,
    input  wire                         last,
    input  wire  [E*MAGNITUDE_BITS-1:0] magnitudes,
    output logic [SCALE_BITS-1:0]       sigma
);
  localparam int ROUNDED_BITS = ((MAGNITUDE_BITS > QMAX_BITS + FRACTION_BITS) ? MAGNITUDE_BITS
                                                                               : QMAX_BITS + FRACTION_BITS) + 1;
  localparam int NUMERATOR_BITS = ROUNDED_BITS - FRACTION_BITS;
  localparam logic [ROUNDED_BITS-1:0] HALF = ROUNDED_BITS'(QMAX) << (FRACTION_BITS - 1);
  localparam int STAGES = SCALE_BITS + 2;

  logic [MAGNITUDE_BITS-1:0] alpha;
  logic [MAGNITUDE_BITS-1:0] largest;
  logic [NUMERATOR_BITS-1:0] numerator;
  logic [SCALE_BITS-1:0]     quotient;
  logic [STAGES-1:0]         ends;      // a vector's last beat was so many enabled cycles ago
  logic [SCALE_BITS:0]       occupied;  // alpha > 0, beside the numerator and each digit

  always_comb begin
    largest = first ? '0 : alpha;
    for (int i = 0; i < E; i++)
      if (magnitudes[i*MAGNITUDE_BITS +: MAGNITUDE_BITS] > largest)
        largest = magnitudes[i*MAGNITUDE_BITS +: MAGNITUDE_BITS];
  end

  always_ff @(posedge clk) begin
    if (enable) begin
      if (valid) alpha <= largest;
      numerator <= NUMERATOR_BITS'((ROUNDED_BITS'(alpha) + HALF) >> FRACTION_BITS);
      occupied <= {occupied[SCALE_BITS-1:0], alpha != '0};
      if (ends[STAGES-1]) sigma <= quotient | SCALE_BITS'(occupied[SCALE_BITS] && quotient == '0);
    end
  end

  always_ff @(posedge clk) begin
    if (rst) ends <= '0;
    else if (enable) ends <= {ends[STAGES-2:0], valid && last};
  end

  vsq_divider #(
      .NUMERATOR_BITS(NUMERATOR_BITS),
      .DENOMINATOR_BITS(QMAX_BITS),
      .QUOTIENT_BITS(SCALE_BITS)
  ) u_divider (
      .clk(clk),
      .enable(enable),
      .numerator(numerator),
      .denominator(QMAX_BITS'(QMAX)),
      .quotient(quotient)
  );
endmodule
`default_nettype wire
