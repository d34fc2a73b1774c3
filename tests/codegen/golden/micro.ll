target triple = "x86_64-unknown-linux-gnu"

define void @"k.micro"(ptr %ctx, ptr %p0, ptr %p1, ptr %p2, ptr %scratch) #0 {
entry:
  br label %b1
b1:
  %v3 = phi i64 [ 0, %entry ], [ %v12, %b1 ]
  %v4 = phi <8 x float> [ splat (float 0x0000000000000000), %entry ], [ %v11, %b1 ]
  %v5 = getelementptr [8 x float], ptr %p1, i64 %v3
  %v6 = load <8 x float>, ptr %v5, align 4
  %v7 = getelementptr float, ptr %p0, i64 %v3
  %v8 = load float, ptr %v7, align 4
  %v9 = insertelement <8 x float> poison, float %v8, i64 0
  %v10 = shufflevector <8 x float> %v9, <8 x float> poison, <8 x i32> zeroinitializer
  %v11 = call <8 x float> @llvm.fma.v8f32(<8 x float> %v10, <8 x float> %v6, <8 x float> %v4)
  %v12 = add nsw i64 %v3, 1
  %v13 = icmp slt i64 %v12, 4
  br i1 %v13, label %b1, label %b2, !llvm.loop !5
b2:
  store <8 x float> %v11, ptr %p2, align 4
  ret void
}

attributes #0 = { nounwind }
attributes #1 = { nounwind alwaysinline }
attributes #2 = { nounwind noinline cold "target-features"="+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+popcnt,+lzcnt,-vzeroupper" }
!0 = !{!"llvm.loop.unroll.disable"}
!1 = !{!"llvm.loop.vectorize.enable", i1 false}
!2 = !{!"branch_weights", i32 1048575, i32 1}
!3 = !{i32 1}
!4 = !{}
!5 = distinct !{!5, !0, !1}
